package cli

import (
	"context"
	"io"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// placeFlags adds the flags of every verb that takes a REF to a registry.
func placeFlags(more ...ucli.Flag) []ucli.Flag {
	return accessFlags(more...)
}

// storeDir is the folder of the local store: WAYBILL_HOME/store.
func (c *Call) storeDir() (string, error) {
	d, err := c.Env.DataDir()
	if err != nil {
		return "", diag.Wrap(diag.Failure, err, "find the local store")
	}
	return filepath.Join(d, "store"), nil
}

// openStore opens the local store, or the layout of --store DIR where the verb has that flag; it makes it when asked.
func (c *Call) openStore(ctx context.Context, create bool) (*store.Store, error) {
	d := c.Abs(c.String("store"))
	if d == "" {
		var err error
		if d, err = c.storeDir(); err != nil {
			return nil, err
		}
	}
	return store.Open(ctx, d, store.Options{Create: create, References: c.String("store") == ""})
}

// place opens the repository of a reference for reading. Plain http is for loopback, unless --plain-http.
func (c *Call) place(ctx context.Context, ref registry.Ref) (*openPlace, error) {
	return c.openPlace(ctx, ref, false)
}

// openPlace opens the repository of a reference; create makes a store or layout that does not exist. To who only reads, a
// local store that was never used is an empty one.
func (c *Call) openPlace(ctx context.Context, ref registry.Ref, create bool) (*openPlace, error) {
	dir, err := c.storeDir()
	if err != nil && ref.Kind == registry.KindLocal {
		return nil, err
	}
	if ref.Path != "" {
		ref.Path = c.Abs(ref.Path)
	}
	remote, err := c.remoteOptions()
	if err != nil {
		return nil, err
	}
	p, err := registry.Open(ctx, ref, registry.Options{
		Create: create, StoreDir: dir, References: true, Remote: remote,
	})
	if !create && diag.CodeOf(err) == diag.NotFound {
		p, err = c.emptyPlace(ctx, ref, dir, err)
	}
	if err != nil {
		return nil, err
	}
	return &openPlace{p}, nil
}

// emptyPlace stands in for a local store that was never used, so that a look makes no folder, and for a layout that a dry
// run would make. Other things that are not there stay missing.
func (c *Call) emptyPlace(ctx context.Context, ref registry.Ref, dir string, missing error) (registry.Place, error) {
	switch {
	case ref.Kind == registry.KindLayout && c.Bool("dry-run"):
		s, err := emptyStore(ctx, ref.Path)
		if err != nil {
			return nil, err
		}
		return registry.NewLayout(s), nil
	case ref.Kind == registry.KindLocal:
		s, err := emptyStore(ctx, dir)
		if err != nil {
			return nil, err
		}
		return registry.NewLocal(s, ref.Repo), nil
	}
	return nil, missing
}

// emptyStore is a store in memory that calls itself dir.
func emptyStore(ctx context.Context, dir string) (*store.Store, error) {
	free := func(context.Context, string, bool) (func() error, error) { return func() error { return nil }, nil }
	return store.Open(ctx, dir, store.Options{FS: fsx.NewMem(), Lock: free, Create: true})
}

// openArg parses a REF of the command line and opens its repository for reading.
func (c *Call) openArg(ctx context.Context, arg string) (registry.Ref, *openPlace, error) {
	ref, err := registry.ParseRef(arg)
	if err != nil {
		return ref, nil, err
	}
	p, err := c.place(ctx, ref)
	return ref, p, err
}

// openPlace is a repository that may hold a store open.
type openPlace struct{ registry.Place }

// Close lets go of a store; a registry has nothing to close.
func (p *openPlace) Close() {
	if x, ok := p.Place.(io.Closer); ok {
		_ = x.Close() // only locks are held
	}
}
