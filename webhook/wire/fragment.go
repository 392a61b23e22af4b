package wire

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/metawire/metawire/internal/wiring"
)

// pluginName is what Falco calls the plugin.
const pluginName = "k8smeta"

// The part of Falco's configuration that the fragment is.
type (
	falcoFragment struct {
		Plugins     []falcoPlugin `yaml:"plugins"`
		LoadPlugins []string      `yaml:"load_plugins,omitempty"`
	}
	falcoPlugin struct {
		Name        string     `yaml:"name"`
		LibraryPath string     `yaml:"library_path"`
		InitConfig  initConfig `yaml:"init_config"`
	}
	initConfig struct {
		Hostname string    `yaml:"collectorHostname"`
		Port     int       `yaml:"collectorPort"`
		NodeName yaml.Node `yaml:"nodeName"`
		CAFile   string    `yaml:"caPEMBundle,omitempty"`
	}
)

// fragment returns what Falco joins to its configuration. load_plugins is there
// only where the configuration has it: where it has none, Falco loads all that is
// configured, and a list of one would turn the others off.
func fragment(task wiring.Task, library, nodeName string, conf configuration) ([]byte, error) {
	f := falcoFragment{Plugins: []falcoPlugin{{
		Name:        pluginName,
		LibraryPath: library,
		InitConfig: initConfig{
			Hostname: task.Host,
			Port:     task.Port,
			NodeName: yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: nodeName},
		},
	}}}
	if task.TLS {
		f.Plugins[0].InitConfig.CAFile = wiring.CAFile
	}
	if conf.loadDefined && !conf.loadNamed {
		f.LoadPlugins = []string{pluginName}
	}
	var out bytes.Buffer
	out.WriteString("# Written by Metawire's init container. It holds this pod's ticket, which is a secret.\n")
	enc := yaml.NewEncoder(&out)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("encode the fragment: %w", err)
	}
	return out.Bytes(), nil
}

// writeFile writes a file that is there as a whole or not at all.
func writeFile(path string, content []byte) error {
	return writeWhole(path, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// writeWhole lets fill write a temporary file and puts it in place if that went
// well. Everybody may read it: Falco's container may run as any user and in no
// group of ours, and nobody else gets there, since the directory is an emptyDir
// of this pod that only Falco's container and ours mount.
func writeWhole(path string, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".metawire-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = fill(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
