package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metawire/metawire/internal/installation"
)

// parts are the daemons that the release has.
func (t *Target) parts() (all []string) {
	if collects(t) == "" {
		all = append(all, installation.Collector)
	}
	if wires(t) == "" {
		all = append(all, installation.Webhook)
	}
	return all
}

// configurations: each daemon's file is there, and is one that it takes. One that is
// gone or wrong is found out by daemons when they restart.
func configurations(ctx context.Context, t *Target) finding {
	var bad []string
	for _, component := range t.parts() {
		file, err := t.found.Configuration(ctx, component)
		switch {
		case errors.Is(err, installation.ErrNoConfiguration):
			bad = append(bad, fmt.Sprintf("the %s's ConfigMap is not there: pods that run go on with what they have read, and none can start", component))
			continue
		case err != nil:
			return unread(err, "list configmaps in namespace "+t.found.Namespace)
		}
		decode := t.Decode[component]
		if decode == nil || isOther(t.Version, t.found.Version) { // it may know other keys
			continue
		}
		if err := decode(file); err != nil {
			bad = append(bad, fmt.Sprintf("the %s's ConfigMap is not one that it takes: %s: pods that run go on with the one of before, and none can start", component, strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
	}
	if len(bad) > 0 {
		return fail("correct it, or "+t.reinstall(), bad...)
	}
	return fine()
}

// accounts: the daemons' ServiceAccounts are there, and are the ones of which their
// pods hold tokens. Without, the API server answers them nothing, and they go on with
// what they know.
func accounts(ctx context.Context, t *Target) finding {
	ns := t.found.Namespace
	var bad, restart []string
	gone := false
	for _, component := range t.parts() {
		user, err := t.found.AccountOf(ctx, component)
		if errors.Is(err, installation.ErrNoPart) { // of the Deployment another check tells
			continue
		}
		if err != nil {
			return unread(err, "list deployments in namespace "+ns)
		}
		name := user[strings.LastIndex(user, ":")+1:]
		account, err := t.found.Client().CoreV1().ServiceAccounts(ns).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			bad = append(bad, fmt.Sprintf("ServiceAccount %s of the %s is not there: the API server answers its pods nothing, and none is made", name, component))
			restart, gone = append(restart, component), true
			continue
		case apierrors.IsForbidden(err):
			return skip("you may not get serviceaccounts in namespace " + ns)
		case err != nil:
			return unread(err, "get serviceaccounts in namespace "+ns)
		}
		pods, err := t.found.Pods(ctx, component)
		if err != nil {
			return unread(err, "list pods in namespace "+ns)
		}
		if old := older(pods, account); old != "" {
			bad = append(bad, fmt.Sprintf("pod %s is older than ServiceAccount %s, which was deleted and made anew: the API server does not take its token", old, name))
			restart = append(restart, component)
		}
	}
	if len(bad) == 0 {
		return fine()
	}
	hint := fmt.Sprintf("kubectl -n %s rollout restart deployment -l 'app.kubernetes.io/instance=%s,app.kubernetes.io/component in (%s)'", ns, t.found.Release, strings.Join(restart, ","))
	if gone {
		hint = t.reinstall() + ". Then " + hint
	}
	return fail(hint, bad...)
}

// older names a pod that was made before its ServiceAccount.
func older(pods []corev1.Pod, account *corev1.ServiceAccount) string {
	for i := range pods {
		// Those of before an upgrade may run as another one.
		if pods[i].Spec.ServiceAccountName == account.Name && pods[i].CreationTimestamp.Before(&account.CreationTimestamp) {
			return pods[i].Name
		}
	}
	return ""
}

// tickets: the key with which the tickets of wired pods are made is there. Collectors
// that hold it go on; those that start without refuse every wired Falco.
func tickets(ctx context.Context, t *Target) finding {
	name := t.config.Stream.Tickets.Secret.Name
	if name == "" {
		return skip("the collectors give no tickets")
	}
	secret, err := t.found.Client().CoreV1().Secrets(t.found.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return skip("you may not get secrets in namespace " + t.found.Namespace)
	case apierrors.IsNotFound(err):
		return fail("collectors that still run write their key into it when it is back: "+t.reinstall(),
			fmt.Sprintf("Secret %s is not there: collectors that restart know no ticket, and refuse every wired Falco", name))
	case err != nil:
		return unread(err, "get secrets in namespace "+t.found.Namespace)
	case len(secret.Data) == 0:
		return fail("the collectors write it: are they ready, and may they? "+t.logs(installation.Collector), fmt.Sprintf("Secret %s holds no key", name))
	}
	return fine()
}
