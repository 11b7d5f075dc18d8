//go:build !unix

package engine

// newMemory allocates ordinary memory; the weights are copied into it.
func newMemory(max uint64, _ *weightsImage) (linearMemory, error) {
	return &plainMemory{max: max}, nil
}
