package agent

import (
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// moreMutants are defects of what moreScenarios does.
func moreMutants() []mutant {
	factory := []string{"factory-update-with-sweep", "factory-as-the-last-resort", "factory-by-hand"}
	reports := []string{"report-waits", "report-is-taken", "report-is-replaced"}
	files := []string{"journal-in-files-of-which-100-are-kept", "journal-in-files-of-which-2-are-kept", "journal-files-alone"}
	ends := []fsx.Fault{fsx.Kill, fsx.KillAfter}
	without := func(drop func(*state.Channel)) func(*Agent) {
		return func(a *Agent) {
			a.checks.needs = func(c *state.Channel) []state.Slot {
				x := c.Clone()
				drop(x)
				return x.Slots()
			}
		}
	}
	return []mutant{
		{name: "the pointer to the factory artifact lives in memory", only: factory, fs: writesDoc(eachChannel(func(c *state.Channel) { c.Factory = nil }))},
		{name: "a sweep that ignores the factory artifact", only: factory, agent: without(func(c *state.Channel) { c.Factory = nil })},
		{name: "a sweep that ignores what a record keeps", only: []string{"record-keeps-eight"}, agent: without(func(c *state.Channel) { c.Kept = nil })},
		{name: "a shadow run whose differences nobody sees", only: []string{"shadow-passes", "shadow-differs"}, agent: func(a *Agent) {
			if a.Shadows != nil {
				a.Shadows = blindShadower{a.Shadows}
			}
		}},
		{name: "a freeze lives in memory", only: []string{"freeze", "freeze-in-a-trial", "freeze-and-rollback"}, fs: writesDoc(eachChannel(func(c *state.Channel) { c.Frozen = nil }))},
		{name: "reports without fsync", only: reports, fs: func(inner fsx.FS) fsx.FS {
			return &layer{FS: inner, syncFile: func(f fsx.File) error {
				if strings.Contains(filepath.ToSlash(f.Name()), "/spool/") {
					return nil
				}
				return f.Sync()
			}, syncDir: func(name string) error {
				if filepath.Base(name) == "spool" {
					return nil
				}
				return inner.SyncDir(name)
			}}
		}},
		{name: "what changed before the process ended is not reported", only: reports, agent: func(a *Agent) {
			for _, f := range a.followers {
				f.unsent = false
			}
		}},
		{name: "the new name of a full file of the journal is not synced", only: files, kinds: ends, fs: func(inner fsx.FS) fsx.FS {
			var renamed atomic.Bool
			return &layer{FS: inner, rename: func(oldname, newname string) error {
				renamed.Store(filepath.Base(oldname) == "journal.log")
				return inner.Rename(oldname, newname)
			}, syncDir: func(name string) error {
				if renamed.Swap(false) {
					return nil
				}
				return inner.SyncDir(name)
			}}
		}},
	}
}

// blindShadower runs comparisons and finds no difference in any.
type blindShadower struct{ Shadower }

func (b blindShadower) Shadow(live, candidate Model, s Shadow) (ShadowRun, error) {
	run, err := b.Shadower.Shadow(live, candidate, s)
	return blindRun{run}, err
}

type blindRun struct{ ShadowRun }

func (r blindRun) Result() shadow.Result {
	res := r.ShadowRun.Result()
	res.Different = 0
	return res
}
