package fanout

// Nodes counts the nodes that the hub keeps something for.
func (h *Hub) Nodes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.nodes)
}
