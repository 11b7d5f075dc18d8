package cli_test

import (
	"context"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/publish/lock"
	"github.com/waybill-ml/waybill/oci/registry"
)

// holdLock is `holdlock LOCKS REPO CHANNEL`: another publisher has the lock in the repository LOCKS and never comes back. Its id is
// in HOLDER.
func holdLock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: holdlock LOCKS REPO CHANNEL")
	}
	ref, err := registry.ParseRef(args[0])
	ts.Check(err)
	p, err := registry.Open(context.Background(), ref, registry.Options{})
	ts.Check(err)
	h, err := lock.Acquire(context.Background(), lock.Tag(p, lock.Name(args[1], args[2])), lock.Options{Who: "ada at ci-7", What: "channel publish prod"})
	ts.Check(err)
	ts.Setenv("HOLDER", h.ID())
}
