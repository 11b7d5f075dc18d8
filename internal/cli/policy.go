package cli

import (
	"context"
	"io/fs"
	"os"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/rego"
)

func policyCommand() Command {
	return Command{
		Name: "policy", Group: Govern, Summary: "look at, test and pack the rules of the gate",
		Long: `A policy is a folder of Rego and data.json. Its digest is what environments pin, what devices accept and what every
verdict names. Without PATH the verbs mean the builtin policy.`,
		Examples: []string{"waybill policy list", "waybill policy explain MET-001", "waybill policy digest"},
		See:      []string{"gate", "env"},
		Sub: []Command{policyListCommand(), policyExplainCommand(), policyTestCommand(), policyDigestCommand(), policyPackCommand(),
			policyPushCommand(), policyPullCommand(), policyVerifyCommand(),
			policyLintCommand(), policyFmtCommand(), policyConftestCommand(),
			policyEvalCommand()},
	}
}

// compilePolicy opens and compiles a policy for a look at it.
func (c *Call) compilePolicy(ctx context.Context, path string) (*rego.Policy, fs.FS, error) {
	o, err := c.openPolicyAt(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer o.Close()
	if path != "" && path != environments.Builtin { // first where it can do no harm
		if _, err := c.rulesOf(ctx, o.Bundle); err != nil {
			return nil, nil, diag.Wrap(diag.Failure, err, "%s", o.named())
		}
	}
	p, err := rego.Compile(ctx, o.Bundle)
	if err != nil {
		return nil, nil, diag.Wrap(diag.Failure, err, "%s", o.named())
	}
	return p, o.FS, nil
}

// writeNew writes a file whole or not at all. An existing one is replaced only when force says so.
func (c *Call) writeNew(path string, b []byte, perm os.FileMode, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return diag.New(diag.Usage, "%s exists", path).Hint("--force replaces it")
	}
	if c.dry(path, b) {
		return nil
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, perm); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", path)
	}
	return nil
}
