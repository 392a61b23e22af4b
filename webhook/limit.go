package webhook

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

const (
	// maxReview bounds what is read of one request, in bytes. The API server takes
	// objects of up to 3 MiB, and a review holds one pod.
	maxReview = 4 << 20
	// reviewOverhead is what a request counts for at least, in bytes, so that not
	// too many small ones are worked on at once.
	reviewOverhead = 64 << 10
)

// limit lets requests of maxReview bytes altogether be worked on at once; the
// others wait for as long as their clients do. Working on a pod takes some ten
// times its size, and the memory limit of the container is to hold.
func limit(h http.Handler) http.Handler {
	room := semaphore.NewWeighted(maxReview)
	return http.MaxBytesHandler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		size := r.ContentLength
		if size < 0 { // is not told
			size = maxReview
		}
		size = min(max(size, reviewOverhead), maxReview)
		if err := room.Acquire(r.Context(), size); err != nil {
			http.Error(rw, "too many requests", http.StatusTooManyRequests)
			return
		}
		defer room.Release(size)
		h.ServeHTTP(rw, r)
	}), maxReview)
}
