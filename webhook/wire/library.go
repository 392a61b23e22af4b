package wire

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/metawire/metawire/internal/wiring"
)

// libraryName is the plugin's library in its artifact.
const libraryName = "libk8smeta.so"

// maxLibrary bounds the library. The emptyDir that gets it is bounded to 256 MiB,
// beyond which the kubelet would evict the pod.
const maxLibrary = 128 << 20

// getLibrary gets the plugin's library and returns where Falco finds it. One
// that an earlier run of this pod got is used again: the same pod asks for the
// same one, and the file is whole.
func getLibrary(ctx context.Context, task wiring.Task, v falcoVersion, o Options) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Library, 30*time.Second))
	defer cancel()
	file := o.path(wiring.LibraryFile)
	switch p := task.Plugin; p.Source {
	case wiring.PluginPreinstalled:
		if p.Path == "" {
			return "", errors.New("plugin.path is empty")
		}
		return p.Path, nil
	case wiring.PluginRegistry, wiring.PluginImage:
		if checkLibrary(file) == nil {
			return wiring.LibraryFile, nil
		}
		var err error
		if p.Source == wiring.PluginRegistry {
			err = pullArtifact(ctx, withVersion(p.Reference, v.plugin()), p.PlainHTTP, file)
		} else {
			err = pullFile(ctx, p.Image, p.Path, p.PlainHTTP, file)
		}
		return wiring.LibraryFile, err
	default:
		return "", fmt.Errorf("plugin.source %q is not known", p.Source)
	}
}

// withVersion appends the tag where the reference has neither tag nor digest.
func withVersion(reference, version string) string {
	if last := reference[strings.LastIndex(reference, "/")+1:]; strings.ContainsAny(last, ":@") {
		return reference
	}
	return reference + ":" + version
}

// writeLibrary writes a library from what is read, if it is one for this
// machine. finish is called before the file counts, to verify what was read.
func writeLibrary(file string, from io.Reader, finish func() error) error {
	return writeWhole(file, func(f *os.File) error {
		n, err := io.Copy(f, io.LimitReader(from, maxLibrary+1))
		if err != nil {
			return err
		}
		if n > maxLibrary {
			return fmt.Errorf("the library has over %d bytes", maxLibrary)
		}
		if err := finish(); err != nil {
			return err
		}
		return checkLibrary(f.Name())
	})
}

// checkLibrary requires an ELF file for this machine: a library that cannot be
// loaded ends Falco.
func checkLibrary(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 20)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return errors.New("the library is not an ELF file")
	}
	want, ok := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if got := elf.Machine(binary.LittleEndian.Uint16(head[18:])); ok && got != want {
		return fmt.Errorf("the library is for %v, this machine is %v", got, want)
	}
	return nil
}
