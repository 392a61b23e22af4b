package docs_test

import (
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// documents are the files that people read, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("want all documents, found %d", len(all))
	}
	return all
}

// TestNamedTests: every test that docs/security.md names is in the package that
// it names before it, with its parts.
func TestNamedTests(t *testing.T) {
	named := namedTests(t, documents(t)[filepath.Join(root, "docs", "security.md")])
	if len(named) < 20 {
		t.Errorf("docs/security.md names %d tests: they are not found", len(named))
	}
	for _, n := range named {
		if err := n.find(); err != nil {
			t.Errorf("docs/security.md: `%s` `%s`: %v", n.dir, n.name, err)
		}
	}
	for name, missing := range map[string]namedTest{
		"a package": {"tests/nowhere", "TestRelease"},
		"a test":    {"tests/e2e", "TestNobodyWroteThis"},
		"a part":    {"tests/e2e", "TestRelease/nobody wrote this"},
	} {
		if missing.find() == nil {
			t.Errorf("%s that is missing is found", name)
		}
	}
}

// namedTest is TestName, or TestName/part of it, in a package's directory.
type namedTest struct{ dir, name string }

// namedTests reads them line by line: a package, then its tests.
func namedTests(t *testing.T, text string) (all []namedTest) {
	t.Helper()
	for line := range strings.Lines(text) {
		dir := ""
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			if regexp.MustCompile(`^(Test|Fuzz)[A-Z]`).MatchString(quoted[1]) {
				if dir == "" {
					t.Errorf("%s: no package before it in\n%s", quoted[1], line)
				}
				all = append(all, namedTest{dir, quoted[1]})
			} else {
				dir = quoted[1]
			}
		}
	}
	return all
}

// find returns an error if the package has no such test, or says none of the
// names of its parts.
func (n namedTest) find() error {
	files, err := filepath.Glob(filepath.Join(root, n.dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		return errors.Join(errors.New("no tests in that directory"), err)
	}
	var code strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		code.Write(text)
	}
	parts := strings.Split(n.name, "/")
	if !strings.Contains(code.String(), "\nfunc "+parts[0]+"(") {
		return errors.New("no such function")
	}
	for _, part := range parts[1:] {
		if !strings.Contains(code.String(), `"`+part+`"`) {
			return errors.New("no such part: " + part)
		}
	}
	return nil
}

// TestLinks: what a document links to within the project is there, and the
// section too.
func TestLinks(t *testing.T) {
	all, links := documents(t), 0
	for path, text := range all {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			file, section, _ := strings.Cut(link[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", path, link[1])
			} else if section != "" && !slices.Contains(sections(all[target]), section) {
				t.Errorf("%s links to %s, and there is no such section: %q", path, link[1], sections(all[target]))
			}
		}
	}
	if links < 20 {
		t.Errorf("found %d links in all documents", links)
	}
}

// sections are the names by which the headings of a document can be linked to.
func sections(text string) (all []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		all = append(all, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(name, ""))
	}
	return all
}

// TestVersions: docs/compatibility.md names the versions that the tests have.
func TestVersions(t *testing.T) {
	text := documents(t)[filepath.Join(root, "docs", "compatibility.md")]
	for _, v := range []struct{ file, pattern, says string }{
		{"tests/cluster/kubernetes/go.mod", `k8s.io/kubernetes v(\d+\.\d+\.\d+)`, "scheduler of %s,"},
		{"charts/metawire/Chart.yaml", `kubeVersion: ">=(\d+\.\d+)\.0-0"`, "| before %s |"},
		{"go.mod", `helm.sh/helm/v3 v(\d+\.\d+)`, "| Helm %s |"},
		{".ci/tools/go.mod", `helm.sh/helm/v3 v(\d+\.\d+)`, "| Helm %s |"},
		{"tests/cluster/addons/certmanager/go.mod", `cert-manager/cert-manager v(\d+\.\d+)`, "| cert-manager %s |"},
		{"tests/falco/image/image.go", `falcosecurity/falco:(\d+\.\d+)`, "| %s | 0.4.1 |"},
	} {
		file, err := os.ReadFile(filepath.Join(root, v.file))
		if err != nil {
			t.Fatal(err)
		}
		version := regexp.MustCompile(v.pattern).FindSubmatch(file)
		if version == nil {
			t.Errorf("%s has nothing like %s", v.file, v.pattern)
		} else if says := strings.ReplaceAll(v.says, "%s", string(version[1])); !strings.Contains(text, says) {
			t.Errorf("docs/compatibility.md does not say %q, which is the version in %s", says, v.file)
		}
	}
}

// TestPictures: they are XML that a browser reads, and need nothing from elsewhere.
func TestPictures(t *testing.T) {
	pictures, err := filepath.Glob(filepath.Join(root, "docs", "*.svg"))
	if err != nil || len(pictures) == 0 {
		t.Fatal("no pictures", err)
	}
	for _, p := range pictures {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d := xml.NewDecoder(f)
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", p, err)
			}
			element, ok := token.(xml.StartElement)
			if ok && slices.Contains([]string{"script", "image", "use", "foreignObject"}, element.Name.Local) {
				t.Errorf("%s: <%s>", p, element.Name.Local)
			}
		}
	}
}
