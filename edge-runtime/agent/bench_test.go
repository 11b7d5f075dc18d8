package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// BenchmarkRollback goes back and forth between two artifacts by hand on a real disk: intent, every file hashed again, loaded, its golden
// vectors run, swapped in, commit, journal, signed report, all synced. The module is as large as the name says; loading it and its
// vectors cost nothing here, edge-runtime/engine measures those.
func BenchmarkRollback(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.Chdir(b.TempDir())
			w := newWorld(b)
			fs := fsx.OS{}
			if err := fs.MkdirAll("var/lib", 0o755); err != nil {
				b.Fatal(err)
			}
			d := w.mustBoot(fs)
			for _, v := range []string{"1.0 ", "2.0 "} {
				w.publish(w.change(w.model(v + strings.Repeat("x", size))))
				if err := d.pollOnce(); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(size))
			before := d.server.current()
			n := 0
			for b.Loop() {
				n++
				if _, err := d.Rollback(b.Context(), "prod", ""); err != nil {
					b.Fatal(err)
				}
			}
			if (d.server.current() == before) != (n%2 == 0) {
				b.Fatal("something else serves")
			}
		})
	}
}
