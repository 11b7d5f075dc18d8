package build_test

import (
	"testing"

	"github.com/waybill-ml/waybill/packager/build"
)

// Progress adds up to what Begin announced, whatever goes into the bundle.
func TestProgressAddsUp(t *testing.T) {
	in, m, _ := load(t, example)
	for _, without := range []bool{false, true} {
		var total, done int64
		begun := 0
		o := build.PackOptions{WithoutSource: without, Begin: func(n int64) { total, begun = n, begun+1 }, Progress: func(n int64) { done += n }}
		if _, err := build.Pack(t.Context(), in, m, nil, openStore(t, false), o); err != nil {
			t.Fatal(err)
		}
		if begun != 1 || total == 0 || done != total {
			t.Errorf("without source %t: begun %d times, %d of %d bytes", without, begun, done, total)
		}
	}
}
