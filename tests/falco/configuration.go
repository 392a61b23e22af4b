package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"

	"github.com/metawire/metawire/tests/falco/configuration"
)

// k8smeta is the plugin's init_config.
type k8smeta struct {
	Hostname  string
	Port      int
	NodeName  *string
	CABundle  string
	library   string // what its file says
	Verbosity string
}

// k8smetaOf returns the plugin, nil if it is not loaded. It opens its library.
func k8smetaOf(c *configuration.Configuration) (*k8smeta, error) {
	for _, p := range c.Plugins {
		if p.Name == "k8smeta" {
			return initialize(p)
		}
	}
	return nil, nil //nolint:nilnil // as said
}

func initialize(entry configuration.Plugin) (*k8smeta, error) {
	p := &k8smeta{}
	content, err := os.ReadFile(entry.Library)
	if err != nil {
		return nil, fmt.Errorf("cannot load plugin k8smeta: %w", err)
	}
	if !bytes.HasPrefix(content, []byte("\x7fELF")) {
		return nil, fmt.Errorf("cannot load plugin k8smeta: %s: invalid ELF header", entry.Library)
	}
	p.library = string(bytes.Trim(content[min(64, len(content)):], "\x00"))
	config, _ := entry.Init.(map[string]any)
	for key, value := range config {
		text, isText := value.(string)
		number, isNumber := value.(float64)
		bad := fmt.Errorf("k8smeta: init_config.%s is of a wrong type: %v", key, value)
		switch key {
		case "collectorHostname":
			p.Hostname = text
		case "collectorPort":
			if !isNumber {
				return nil, bad
			}
			p.Port, isText = int(number), true
		case "nodeName":
			p.NodeName = &text
		case "caPEMBundle":
			p.CABundle = text
		case "verbosity":
			p.Verbosity = text
		default:
			return nil, fmt.Errorf("k8smeta: init_config has no %s", key)
		}
		if !isText {
			return nil, bad
		}
	}
	return p, nil
}

var whole = regexp.MustCompile(`^\$\{([^}]+)\}$`)

// nodeName is what the plugin sends: the variable's value if it is one, as a
// whole.
func (p *k8smeta) nodeName(env func(string) string) string {
	if p.NodeName == nil {
		return ""
	}
	if m := whole.FindStringSubmatch(*p.NodeName); m != nil {
		return env(m[1])
	}
	return *p.NodeName
}
