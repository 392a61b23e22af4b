package roster

import "maps"

// Namespace is a namespace of the cluster.
type Namespace struct {
	Name, UID string
	Labels    map[string]string
}

// namespaces holds the namespaces.
type namespaces struct {
	all   map[string]*Namespace // by name
	names map[string]string     // by UID
}

func newNamespaces() namespaces {
	return namespaces{map[string]*Namespace{}, map[string]string{}}
}

func (n *namespaces) put(s Namespace) { n.all[s.Name], n.names[s.UID] = &s, s.Name }

// SyncedNamespaces is closed once all namespaces are known.
func (r *Roster) SyncedNamespaces() <-chan struct{} { return r.namespacesSynced }

// ApplyNamespace takes in a namespace's latest version.
func (r *Roster) ApplyNamespace(n Namespace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.namespaces.all[n.Name]; old != nil && old.UID == n.UID && maps.Equal(old.Labels, n.Labels) {
		return
	}
	r.namespaces.put(n)
	r.broadcast()
}

// DeleteNamespace takes a namespace out. One that was made again under the old
// one's name stays.
func (r *Roster) DeleteNamespace(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, ok := r.namespaces.names[uid]
	if !ok {
		return
	}
	delete(r.namespaces.names, uid)
	if n := r.namespaces.all[name]; n != nil && n.UID == uid {
		delete(r.namespaces.all, name)
	}
	r.broadcast()
}

// ReplaceNamespaces makes the namespaces the only ones.
func (r *Roster) ReplaceNamespaces(all []Namespace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.namespaces = newNamespaces()
	for _, n := range all {
		r.namespaces.put(n)
	}
	closeOnce(r.namespacesSynced)
	r.broadcast()
}

// Namespace returns the namespace with the name.
func (r *Roster) Namespace(name string) (Namespace, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.namespaces.all[name]; n != nil {
		return *n, true
	}
	return Namespace{}, false
}
