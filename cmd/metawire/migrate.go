package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/client-go/rest"

	"github.com/metawire/metawire/collector/inventory"
	"github.com/metawire/metawire/migrate"
	"github.com/metawire/metawire/migrate/release"
)

// migration is the command's flags.
type migration struct {
	cluster                   cluster
	options                   migrate.Options
	files, set                []string
	dryRun, yes, finish, undo bool
	output                    *choice
	stdin                     io.Reader
}

func newMigrate() *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Move releases of k8s-metacollector, firefly-k8s-collector or infralight-k8s-collector to Metawire",
		Long: `Find the releases of predecessors' charts in the cluster, show what would become of
each, and, when you say so, do it: back up, install Metawire beside the old release,
test it, lead the old Service to it, and only then remove the old release. No hook
of the old release is run.

What fails before the removal is undone by itself. A run that was interrupted, or
killed, is taken up by the next one. --rollback undoes a finished migration too,
from the backup that is kept in the cluster.

The chart is the one of this metawire; nothing is downloaded. Releases that Helm
does not keep in Secrets are not seen.

Exit codes: 0 done, or nothing to do; 2 there is a plan (--dry-run); 1 error, such
as a --release that is not there, or a plan that cannot be carried out.`,
		Example: `  # What would be done?
  metawire migrate --dry-run

  # Do it, after a question
  metawire migrate

  # One release of several, without a question
  metawire migrate --namespace falco --release k8s-metacollector --yes

  # When no Falco uses the old Service any more
  metawire migrate --finish

  # Back to the old release
  metawire migrate --rollback --namespace falco --release k8s-metacollector`,
		Args: cobra.NoArgs,
	}
	m := migration{}
	f := c.Flags()
	f.StringVar(&m.cluster.kubeconfig, "kubeconfig", "", "`file` with the clusters to choose from (default: KUBECONFIG, or ~/.kube/config)")
	f.StringVar(&m.cluster.context, "context", "", "`name` of the kubeconfig's context (default: the current one)")
	o := &m.options
	f.StringVarP(&o.Namespace, "namespace", "n", "", "`namespace` of the old release (default: all are looked through)")
	f.StringVar(&o.Release, "release", "", "`name` of the old release (default: all there are)")
	f.StringVar(&o.ToNamespace, "to-namespace", "", "`namespace` of the new release (default: that of the old one)")
	f.StringVar(&o.ToRelease, "to-release", "", "`name` of the new release (default: metawire)")
	f.StringArrayVarP(&m.files, "values", "f", nil, "`file` with values of the new release, which win over those of the old one")
	f.StringArrayVar(&m.set, "set", nil, "`key=value` of the new release, as helm takes it")
	f.BoolVar(&m.dryRun, "dry-run", false, "only show the plan")
	f.BoolVar(&o.AllowUnknown, "allow-unknown", false, "leave out values of the old release whose meaning is not known")
	f.BoolVar(&o.KeepOld, "keep-old", false, "end before the old release is removed; the next run removes it")
	f.BoolVar(&m.finish, "finish", false, "remove old Services that nobody uses any more")
	f.BoolVar(&m.undo, "rollback", false, "undo a migration")
	f.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "how long each step may take")
	f.StringVar(&o.Backup, "backup", "", "`file` for the backup, which holds credentials (default: metawire-backup-NAMESPACE-RELEASE-TIME.json here)")
	f.BoolVarP(&m.yes, "yes", "y", false, "do not ask")
	c.MarkFlagsMutuallyExclusive("dry-run", "finish", "rollback")
	c.MarkFlagsMutuallyExclusive("keep-old", "finish", "rollback")
	m.output = outputFlag(c, "text", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		m.stdin = c.InOrStdin()
		return m.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

func (m *migration) run(ctx context.Context, stdout, stderr io.Writer) error {
	config, _, err := m.cluster.config()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100        // a question for each object and permission
	config.WarningHandler = rest.NoWarnings{} // old objects may be of versions that are deprecated
	if m.options.Values, err = release.Values(m.files, m.set); err != nil {
		return err
	}
	steps := newSteps(stderr)
	defer steps.end()
	m.options.Tell, m.options.Endpoint = steps.tell, probe
	migrator, err := migrate.New(config, m.options)
	if err != nil {
		return err
	}
	look, do := migrator.Survey, m.apply
	switch {
	case m.undo:
		look, do = migrator.Begun, m.rollBack
	case m.finish:
		look, do = migrator.Begun, m.finishAll
	}
	steps.begin("looking at the releases of the cluster")
	survey, err := look(ctx)
	steps.end()
	if err != nil {
		return err
	}
	return do(ctx, migrator, survey, stdout, stderr)
}

// apply shows the plans, and does what they say if it may.
func (m *migration) apply(ctx context.Context, migrator *migrate.Migrator, s *migrate.Survey, stdout, stderr io.Writer) error {
	if m.options.Release != "" && len(s.Plans)+len(s.Done) == 0 {
		return m.notThere()
	}
	if err := m.show(stdout, s); err != nil {
		return err
	}
	if len(s.Plans) == 0 {
		return nil
	}
	for _, p := range s.Plans {
		if len(p.Problems) > 0 {
			return fmt.Errorf("%w: release %s cannot be migrated as things are (see its problems)%s", migrate.ErrProblems, p.Old, others(s.Plans))
		}
	}
	if m.options.Backup != "" && len(s.Plans) > 1 && !m.dryRun {
		return fmt.Errorf("--backup is %q, one file, and there are %d releases: choose one (--namespace NAMESPACE --release NAME), or leave --backup out", m.options.Backup, len(s.Plans))
	}
	if m.dryRun {
		return fmt.Errorf("%w: there is a plan", errFinding)
	}
	if err := m.ask(stderr, fmt.Sprintf("Migrate %s?", some(len(s.Plans), "release"))); err != nil {
		return err
	}
	for _, p := range s.Plans {
		came, err := migrator.Apply(ctx, p)
		if err != nil {
			return err
		}
		fmt.Fprintln(stderr, came)
	}
	return nil
}

// notThere says that the release that was named is none to migrate.
func (m *migration) notThere() error {
	where := "any namespace"
	if m.options.Namespace != "" {
		where = fmt.Sprintf("namespace %q", m.options.Namespace)
	}
	return fmt.Errorf("there is no release %q of a predecessor's chart in %s, nor a migration of one: helm list -A lists releases; metawire migrate --dry-run shows which can be migrated", m.options.Release, where)
}

// others says how to migrate those releases that can be, if there are some.
func others(plans []*migrate.Plan) string {
	for _, p := range plans {
		if len(p.Problems) == 0 {
			return fmt.Sprintf("; one that can: --namespace %s --release %s", p.Old.Namespace, p.Old.Name)
		}
	}
	return ""
}

// rollBack undoes the migration that is meant.
func (m *migration) rollBack(ctx context.Context, migrator *migrate.Migrator, s *migrate.Survey, stdout, stderr io.Writer) error {
	var begun []migrate.OldRelease
	for _, p := range s.Plans {
		if p.Resumes != "" {
			begun = append(begun, p.Old)
		}
	}
	for _, d := range s.Done {
		begun = append(begun, d.Old)
	}
	switch len(begun) {
	case 0:
		if m.options.Release != "" {
			return fmt.Errorf("%w: of a release %q", migrate.ErrNothing, m.options.Release)
		}
		return migrate.ErrNothing
	case 1:
	default:
		var names []string
		for _, o := range begun {
			names = append(names, o.String())
		}
		return fmt.Errorf("several migrations can be undone: %s; choose one: --namespace NAMESPACE --release NAME", strings.Join(names, ", "))
	}
	if err := m.ask(stderr, fmt.Sprintf("Bring back release %s of chart %s, and remove the Metawire that took its place?", begun[0], begun[0].Chart)); err != nil {
		return err
	}
	came, err := migrator.RollBack(ctx, begun[0])
	if err != nil {
		return err
	}
	return m.conclude(stdout, came)
}

// finishAll removes the old Services of all migrations that are meant.
func (m *migration) finishAll(ctx context.Context, migrator *migrate.Migrator, s *migrate.Survey, stdout, stderr io.Writer) error {
	done := slices.DeleteFunc(s.Done, func(d migrate.Done) bool { return d.Service == nil })
	if len(done) == 0 {
		return m.conclude(stdout, "there is no old Service to remove")
	}
	var names []string
	for _, d := range done {
		names = append(names, d.Service.String())
	}
	if err := m.ask(stderr, fmt.Sprintf("Remove %s, unless somebody uses it?", strings.Join(names, ", "))); err != nil {
		return err
	}
	for _, d := range done {
		if err := migrator.Finish(ctx, d); err != nil {
			return err
		}
	}
	return m.conclude(stdout, "removed "+some(len(done), "old Service"))
}

// conclude says how it ended.
func (m *migration) conclude(w io.Writer, says string) error {
	if m.output.value == "json" {
		return json.NewEncoder(w).Encode(map[string]string{"result": says})
	}
	_, err := fmt.Fprintln(w, says)
	return err
}

func (m *migration) show(w io.Writer, s *migrate.Survey) error {
	if m.output.value == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	return writeSurvey(w, s)
}

// ask asks a person on a terminal; elsewhere nobody can be asked.
func (m *migration) ask(w io.Writer, question string) error {
	if m.yes {
		return nil
	}
	file, ok := m.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return errors.New("nobody can be asked here: say --yes to go on, or --dry-run to look only")
	}
	fmt.Fprintf(w, "%s [y/N] ", question)
	answer, err := bufio.NewReader(file).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// some is a number of things.
func some(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// probe asks an endpoint of the contract runs whether it takes the keys and, if it
// is to be opened, a run of the cluster. What can be tried again is, for half a
// minute.
func probe(ctx context.Context, e migrate.Endpoint) error {
	sender, err := inventory.NewSender(e.URL, inventory.SenderOptions{
		AccessKeys: inventory.AccessKeys{LoginEndpoint: e.LoginURL, AccessKey: e.AccessKey, SecretKey: e.SecretKey},
		Attempts:   3, Timeout: 10 * time.Second, Total: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	if !e.Open {
		return sender.Login(ctx)
	}
	run := inventory.Run{ID: fmt.Sprintf("%024x", time.Now().UnixNano()), ClusterID: e.ClusterID, ClusterUID: e.ClusterUID}
	return inventory.Probe(ctx, sender, run, e.Override)
}
