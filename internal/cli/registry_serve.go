package cli

import (
	"context"
	"net"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/server"
)

func registryCommand() Command {
	return Command{
		Name: "registry", Group: Ship, Summary: "run a registry on this machine",
		Sub: []Command{{
			Name: "serve", Summary: "serve an OCI registry until interrupted",
			Long: `An OCI 1.1 registry with the referrers API, for trying things out, for tests and for sites without one. It keeps
its content on disk. It has no passwords and listens on this machine only, unless --public says that something in front
of it guards it. The address is printed once it answers. An interrupt is its normal end (exit code 0).`,
			Examples: []string{
				"waybill registry serve",
				"waybill registry serve --addr 127.0.0.1:0 --root ./registry --ready-file ./addr",
			},
			Flags: []ucli.Flag{
				&ucli.StringFlag{Name: "addr", Value: "127.0.0.1:5000", Usage: "listen on `HOST:PORT`; port 0 takes a free one", EnvVars: []string{"WAYBILL_REGISTRY_ADDR"}},
				&ucli.StringFlag{Name: "root", Usage: "keep the content in `DIR`, by default in the folder of the local store"},
				&ucli.StringFlag{Name: "ready-file", Usage: "write the address into `FILE` once it answers"},
				&ucli.BoolFlag{Name: "public", Usage: "listen on addresses that other machines reach"},
			},
			See: []string{"push"},
			Run: runRegistryServe,
		}},
	}
}

func runRegistryServe(ctx context.Context, c *Call) error {
	root := c.Abs(c.String("root"))
	if root == "" {
		dir, err := c.Env.DataDir()
		if err != nil {
			return diag.Wrap(diag.Failure, err, "find the folder of the registry")
		}
		root = filepath.Join(dir, "registry")
	}
	log := func(r server.Request) {
		c.UI.Why("%s %s %d %s %s", r.Method, r.Path, r.Status, ui.Bytes(r.Bytes), ui.Duration(r.Duration))
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var broken error // set by the ready function, which runs before Serve returns
	err := server.Serve(ctx, c.String("addr"), root, server.Options{Public: c.Bool("public"), Log: log}, func(addr string) {
		if f := c.Abs(c.String("ready-file")); f != "" {
			if err := fsx.WriteFileAtomic(fsx.OS{}, f, []byte(addr+"\n"), 0o644); err != nil {
				broken = diag.Wrap(diag.Failure, err, "write the ready file")
				stop()
				return
			}
		}
		if c.UI.JSON {
			_, port, _ := net.SplitHostPort(addr) // of a listener: well formed
			broken = c.UI.PrintJSON(struct {
				Schema string `json:"schema"`
				Addr   string `json:"addr"`
				Port   string `json:"port"`
				Root   string `json:"root"`
			}{schemaBase + "registry-serve/v1", addr, port, root})
			return
		}
		c.UI.Say("registry on http://%s, content in %s; end it with Ctrl-C", addr, root)
		c.UI.Data("%s", addr)
	})
	if err != nil {
		return err
	}
	return broken
}
