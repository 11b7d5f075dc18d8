package main

import (
	"context"
)

// verifyWith signs the model of one file in the registry s, with waybill and with the installed cosigns, and gives the
// steps that verify it. Only the manifest is verified: reading the files would measure the disk.
func (b *bench) verifyWith(ctx context.Context, s *server, dir string) ([]step, error) {
	ref := s.addr + "/seed/one:1"
	password := []string{"WAYBILL_PASSWORD=bench", "COSIGN_PASSWORD=bench", "COSIGN_YES=true"}
	do := func(args ...string) error {
		_, _, err := run(ctx, proc{args: args, env: append(b.env(), password...), dir: dir})
		return err
	}
	for _, c := range [][]string{{"keys", "generate", "--role", "root"}, {"keys", "generate", "--role", "publisher"}, {"trust", "init", "--root", "root.pub"},
		{"trust", "add", "trust.yaml", "publisher.pub", "--role", "publisher"}, {"trust", "sign", "trust.yaml", "--key", "root.key"},
		{"sign", ref, "--key", "publisher.key"}, {"sign", "one:1.0.0", "--key", "publisher.key"}} {
		if err := do(append([]string{b.waybill}, c...)...); err != nil {
			return nil, err
		}
	}
	in := func(args ...string) func() proc {
		return func() proc { return proc{args: args, env: append(b.env(), password...), dir: dir} }
	}
	out := []step{
		{step: "verify in a registry", registry: s.name, tool: "waybill", proc: in(b.waybill, "verify", ref, "--no-content")},
		{step: "verify in the store", tool: "waybill", proc: in(b.waybill, "verify", "one:1.0.0", "--no-content")},
		{step: "verify: the start alone", tool: "waybill version", proc: in(b.waybill, "version")},
	}
	for tool, sign := range map[string][]string{"cosign": {"--tlog-upload=false"}, "cosign3": {"--tlog-upload=false", "--new-bundle-format=false", "--use-signing-config=false"}} {
		bin := b.tools[tool]
		if bin == "" {
			continue
		}
		if err := do(bin, "generate-key-pair", "--output-key-prefix", tool); err != nil {
			return nil, err
		}
		// Each cosign has a repository of its own, so that it sees its own signature only.
		own := s.addr + "/seed-" + tool + "/one:1"
		if err := do(b.waybill, "copy", "--no-evidence", ref, own); err != nil {
			return nil, err
		}
		args := append([]string{bin, "sign", "--key", tool + ".key", "--allow-insecure-registry"}, sign...)
		if err := do(append(args, own)...); err != nil {
			return nil, err
		}
		out = append(out, step{step: "verify in a registry", registry: s.name, tool: tool,
			proc: in(bin, "verify", "--key", tool+".pub", "--insecure-ignore-tlog", "--allow-insecure-registry", own)})
	}
	// A run takes milliseconds: warm up, so that no page of the binary comes from the disk.
	for i := range out {
		p := out[i].proc
		out[i].setup = func(ctx context.Context) error {
			for range 3 {
				if _, _, err := run(ctx, p()); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return out, nil
}
