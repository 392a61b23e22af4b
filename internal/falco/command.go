package falco

import (
	"path"
	"strings"
)

// DefaultConfigFile is what Falco reads without -c.
const DefaultConfigFile = "/etc/falco/falco.yaml"

// The keys of Falco's configuration that decide which plugins there are.
const (
	KeyPlugins     = "plugins"
	KeyLoadPlugins = "load_plugins"
	KeyConfigFiles = "config_files"
)

// Command is what Falco's command line says of its configuration.
type Command struct {
	ConfigFile string
	Options    []Option // of every -o, in their order
}

// Option is what one -o sets.
type Option struct{ Key, Value string }

// Root is the first part of the key, such as plugins of plugins[0].name.
func (o Option) Root() string {
	if i := strings.IndexAny(o.Key, ".["); i >= 0 {
		return o.Key[:i]
	}
	return o.Key
}

// Appends reports whether the option adds one element to a list of the
// configuration's root and touches no other.
func (o Option) Appends() bool { return o.Key == o.Root()+"[]" }

// Absolute is a path as Falco's container finds it from where it runs, "" for /.
func Absolute(workingDir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join("/", workingDir, p)
}

// ParseCommand reads Falco's command line: -c FILE, -cFILE, --config FILE,
// --config=FILE, the last of which counts, and the same forms of -o and --option.
func ParseCommand(args []string) Command {
	c := Command{ConfigFile: DefaultConfigFile}
	for i := 0; i < len(args); i++ {
		name, value, has := splitArgument(args[i])
		if name != "config" && name != "option" {
			continue
		}
		if !has {
			if i++; i == len(args) {
				break
			}
			value = args[i]
		}
		if name == "config" {
			c.ConfigFile = value
			continue
		}
		key, value, _ := strings.Cut(value, "=")
		c.Options = append(c.Options, Option{key, value})
	}
	return c
}

// splitArgument returns the long name of an option that matters, "" for any
// other argument, and its value if the argument holds it.
func splitArgument(arg string) (name, value string, has bool) {
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		return strings.Cut(long, "=")
	}
	letters, ok := strings.CutPrefix(arg, "-")
	if !ok {
		return "", "", false
	}
	// Flags may stand before the option, as in -Uc FILE.
	letters = strings.TrimLeft(letters, "AbdEhiLlUuv")
	switch {
	case strings.HasPrefix(letters, "c"):
		name = "config"
	case strings.HasPrefix(letters, "o"):
		name = "option"
	default:
		return "", "", false
	}
	return name, letters[1:], len(letters) > 1
}
