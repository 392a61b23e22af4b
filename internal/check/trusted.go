package check

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// soon is how long before its end an authority is reported.
const soon = 30 * 24 * time.Hour

// trusted checks what the API server verifies the webhook with: without it, pods
// are admitted unwired and nobody is told.
func trusted(ctx context.Context, t *Target) ([]string, string) {
	bundles, err := t.found.CABundles(ctx)
	if err != nil {
		return []string{err.Error()}, "this user must be able to list mutatingwebhookconfigurations"
	}
	if len(bundles) == 0 {
		return []string{"the release has no MutatingWebhookConfiguration"}, "without one no Falco pod is wired: set webhook.enabled"
	}
	var details []string
	for _, bundle := range bundles {
		good := 0
		for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				details = append(details, err.Error())
				continue
			}
			details = append(details, fmt.Sprintf("%s, good until %s", c.Subject.CommonName, c.NotAfter.Format(time.DateOnly)))
			if t.Now.Add(soon).Before(c.NotAfter) {
				good++
			}
		}
		if good == 0 {
			return details, "the caBundle of the MutatingWebhookConfiguration holds no certificate that is good for 30 days more: are the webhooks ready (they keep it), or cert-manager's cainjector? kubectl -n " +
				t.found.Namespace + " logs -l app.kubernetes.io/component=webhook"
		}
	}
	return details, ""
}
