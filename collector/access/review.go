package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/metawire/metawire/internal/wiring"
)

// Identity is whom a token stands for.
type Identity struct {
	User, UID string
	Groups    []string
	Extra     map[string][]string
}

// Extras of tokens that are bound to a pod.
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
	extraNode    = "authentication.kubernetes.io/node-name"
)

// one is the value of an extra that has exactly one.
func (i Identity) one(key string) string {
	if v := i.Extra[key]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// TokenReviewer says whom a token for this audience stands for; false for a
// token that is not good.
type TokenReviewer interface {
	Review(ctx context.Context, token string) (Identity, bool, error)
}

// everyNode, the empty name, stands for all nodes.
const everyNode = ""

// AccessReviewer says whether somebody may read a node's stream: "get
// nodes/stream NAME", or "list nodes/stream" for every node's. A role that names
// its nodes (resourceNames) never allows the second.
type AccessReviewer interface {
	MayRead(ctx context.Context, who Identity, node string) (bool, error)
}

// API is both reviewers, by the API server.
type API struct{ kubernetes.Interface }

// Review implements TokenReviewer.
func (a API) Review(ctx context.Context, token string) (Identity, bool, error) {
	r, err := a.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{wiring.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return Identity{}, false, fmt.Errorf("review a token: %w", err)
	}
	// An API server that knows no audiences leaves them out: then nobody has
	// checked that the token is for us.
	if !r.Status.Authenticated || len(r.Status.Audiences) != 1 || r.Status.Audiences[0] != wiring.Audience {
		return Identity{}, false, nil
	}
	who := Identity{User: r.Status.User.Username, UID: r.Status.User.UID, Groups: r.Status.User.Groups, Extra: map[string][]string{}}
	for k, v := range r.Status.User.Extra {
		who.Extra[k] = v
	}
	return who, true, nil
}

// MayRead implements AccessReviewer.
func (a API) MayRead(ctx context.Context, who Identity, node string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range who.Extra {
		extra[k] = v
	}
	verb := "get"
	if node == everyNode {
		verb = "list"
	}
	r, err := a.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.User, UID: who.UID, Groups: who.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: "metawire.dev", Resource: "nodes", Subresource: "stream", Name: node,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review access of %q to node %q: %w", who.User, node, err)
	}
	return r.Status.Allowed && !r.Status.Denied, nil
}

// How much of the API server callers can use through us.
const (
	reviewsPerSecond  = 200 // 5,000 Falcos that start together, at two replicas, within their 20 s
	reviewsAtOnce     = 32
	reviewsPerAddress = 2  // at once, so that one caller cannot use up the rest
	reviewsPerShared  = 16 // of an address that many share
	reviewTimeout     = 5 * time.Second
	maxToken          = 16 << 10 // bytes
)

// Reviews bounds reviews of tokens. The zero value is not usable.
type Reviews struct {
	reviewer TokenReviewer
	shared   func(netip.Addr) bool
	limiter  *rate.Limiter
	slots    chan struct{}

	mu   sync.Mutex
	from map[netip.Addr]int // under way
}

// NewReviews returns bounded reviews; shared says of an address that many
// callers may have it, nil that of none.
func NewReviews(r TokenReviewer, shared func(netip.Addr) bool) *Reviews {
	if shared == nil {
		shared = func(netip.Addr) bool { return false }
	}
	return &Reviews{
		reviewer: r, shared: shared, limiter: rate.NewLimiter(reviewsPerSecond, reviewsPerSecond),
		slots: make(chan struct{}, reviewsAtOnce), from: map[netip.Addr]int{},
	}
}

// identify returns whom the caller's token stands for; the error is a *Refusal.
func (r *Reviews) identify(ctx context.Context, c Caller) (Identity, error) {
	busy := &Refusal{Unknown, codeBusy, "too many tokens are being reviewed: try again", nil}
	switch {
	case c.Bearer == "":
		return Identity{}, &Refusal{Unauthenticated, codeTokenMissing, "there is no bearer token in the request's metadata", nil}
	case !c.Private:
		return Identity{}, &Refusal{Unauthenticated, codeTokenPlaintext, "bearer tokens are not accepted without TLS", nil}
	case len(c.Bearer) > maxToken:
		return Identity{}, &Refusal{Unauthenticated, codeToken, "the bearer token is too long", nil}
	case !r.enter(c.Address):
		return Identity{}, busy
	}
	defer r.leave(c.Address)
	queued, cancelQueued := context.WithTimeout(ctx, reviewTimeout)
	defer cancelQueued()
	if r.limiter.Wait(queued) != nil {
		return Identity{}, busy
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-queued.Done():
		return Identity{}, busy
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	who, ok, err := r.reviewer.Review(ctx, c.Bearer)
	switch {
	case err != nil:
		return Identity{}, failed(err)
	case !ok:
		return Identity{}, &Refusal{Unauthenticated, codeToken, "the bearer token is not good: it must be one of this cluster's for the audience " + wiring.Audience, nil}
	}
	return who, nil
}

func (r *Reviews) enter(a netip.Addr) bool {
	most := reviewsPerAddress
	if r.shared(a) {
		most = reviewsPerShared
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from[a] >= most {
		return false
	}
	r.from[a]++
	return true
}

func (r *Reviews) leave(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from[a]--; r.from[a] == 0 {
		delete(r.from, a)
	}
}

// People authorizes bearer tokens. It keeps what was allowed for a minute.
type People struct {
	reviews *Reviews
	access  AccessReviewer

	mu      sync.Mutex
	allowed map[[sha256.Size]byte]time.Time // until when, by token and node
}

// maxAllowed bounds what is kept.
const (
	maxAllowed  = 4096
	keepAllowed = time.Minute
)

// NewPeople returns an authorizer of bearer tokens.
func NewPeople(r *Reviews, a AccessReviewer) *People {
	return &People{reviews: r, access: a, allowed: map[[sha256.Size]byte]time.Time{}}
}

// authorize returns nil or a *Refusal. The node is one's name, or everyNode.
func (p *People) authorize(ctx context.Context, c Caller, node string) error {
	if p == nil {
		return &Refusal{Unauthenticated, codeToken, "bearer tokens are not accepted here", nil}
	}
	key := sha256.Sum256([]byte(node + "\x00" + c.Bearer)) // no name holds a NUL
	if c.Private && p.kept(key) {
		return nil
	}
	err := p.review(ctx, c, node)
	if err == nil {
		p.keep(key)
	}
	return err
}

// review asks the API server; the error is a *Refusal.
func (p *People) review(ctx context.Context, c Caller, node string) error {
	who, err := p.reviews.identify(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	switch ok, err := p.access.MayRead(ctx, who, node); {
	case err != nil:
		return failed(err)
	case !ok && node == everyNode:
		return &Refusal{Refused, codeTokenDenied, fmt.Sprintf("%q may not list nodes/stream (group metawire.dev)", who.User), nil}
	case !ok:
		return &Refusal{Refused, codeTokenDenied, fmt.Sprintf("%q may not get nodes/stream (group metawire.dev) of node %q", who.User, node), nil}
	}
	return nil
}

func (p *People) kept(key [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.allowed[key])
}

func (p *People) keep(key [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if len(p.allowed) >= maxAllowed {
		for k, until := range p.allowed {
			if now.After(until) {
				delete(p.allowed, k)
			}
		}
	}
	if len(p.allowed) < maxAllowed {
		p.allowed[key] = now.Add(keepAllowed)
	}
}
