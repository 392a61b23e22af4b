package wire

import "strings"

// defaultConfigFile is what Falco reads without -c.
const defaultConfigFile = "/etc/falco/falco.yaml"

// command is what Falco's command line says of its configuration.
type command struct {
	configFile string
	options    []string // key=value of every -o, in their order
}

// parseCommand reads Falco's command line: -c FILE, -cFILE, --config FILE,
// --config=FILE, the last of which counts, and the same forms of -o and --option.
func parseCommand(args []string) command {
	c := command{configFile: defaultConfigFile}
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
			c.configFile = value
		} else {
			c.options = append(c.options, value)
		}
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
