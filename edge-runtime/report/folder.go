package report

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// Folder is a sink that writes files DEVICE-CHANNEL-SEQ-TIME.json, each at once whole, and keeps the newest few of each
// channel. The folder itself is not made: when a stick is not plugged in there is none, and the report waits.
type Folder struct {
	FS   fsx.FS
	Path string
	Keep int // of each channel of this device; 0 means 16
}

// ID implements Sink.
func (f Folder) ID() string { return "file " + f.Path }

// Send implements Sink.
func (f Folder) Send(_ context.Context, i Item) error {
	if _, err := f.FS.Stat(f.Path); err != nil {
		return err
	}
	prefix := i.Device + "-" + i.Channel + "-"
	name := fmt.Sprintf("%s%d-%s.json", prefix, i.Seq, i.At.UTC().Format("20060102T150405Z"))
	if err := fsx.WriteFileAtomic(f.FS, filepath.Join(f.Path, name), i.Bundle, 0o644); err != nil {
		return err
	}
	es, err := f.FS.ReadDir(f.Path)
	if err != nil {
		return nil // the report is there
	}
	var mine []string
	for _, e := range es {
		n := e.Name()
		if fsx.IsTemp(n) && strings.Contains(n, prefix) {
			_ = f.FS.Remove(filepath.Join(f.Path, n)) // of a write that was cut off
		}
		rest, ok := strings.CutPrefix(n, prefix)
		if ok && strings.HasSuffix(rest, ".json") && strings.Count(rest, "-") == 1 {
			mine = append(mine, n)
		}
	}
	keep := f.Keep
	if keep <= 0 {
		keep = 16
	}
	stamp := func(n string) string { return n[strings.LastIndex(n, "-"):] }
	slices.SortFunc(mine, func(a, b string) int { return strings.Compare(stamp(b), stamp(a)) })
	for _, n := range mine[min(keep, len(mine)):] {
		if err := f.FS.Remove(filepath.Join(f.Path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return nil
}
