package installation

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxPage bounds a page, in bytes.
const maxPage = 16 << 20

// Page is what a pod answers over HTTP.
type Page struct {
	Status int
	Body   []byte
}

// Page reads a page from a named port of a pod of the release, through the API
// server, within ten seconds.
func (i *Installation) Page(ctx context.Context, pod *corev1.Pod, port, path string) (*Page, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// One connection, through the tunnel; it ends with the answer.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return i.DialPort(ctx, pod, port)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod.Name+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxPage))
	if err != nil {
		return nil, err
	}
	return &Page{answer.StatusCode, body}, nil
}

// DialPort connects to a named port of a pod of the release through the API server.
func (i *Installation) DialPort(ctx context.Context, pod *corev1.Pod, port string) (net.Conn, error) {
	number, err := PortOf(pod, port)
	if err != nil {
		return nil, err
	}
	return i.DialPod(ctx, pod.Name, number)
}

// PortOf returns the port of a pod that has a name.
func PortOf(pod *corev1.Pod, name string) (int, error) {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return int(p.ContainerPort), nil
			}
		}
	}
	return 0, fmt.Errorf("pod %s/%s has no port named %s", pod.Namespace, pod.Name, name)
}
