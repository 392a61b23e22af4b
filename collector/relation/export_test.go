package relation

// Held counts the records of every kind that the index holds.
func (x *Index) Held() int {
	return len(x.live) + len(x.objects) + len(x.pods) + len(x.namespaces) + len(x.services) + len(x.slices) + len(x.nodes)
}
