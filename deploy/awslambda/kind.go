package awslambda

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Kinds are lambda, which runs images, and lambda-zip, which runs bundles, as environments.yaml names them.
func Kinds() []targets.Kind {
	s := func() targets.Settings { return &entry{} }
	return []targets.Kind{{Name: "lambda", Runs: targets.Image, Variant: "lambda", Settings: s}, {Name: "lambda-zip", Runs: targets.Bundle, Settings: s}}
}

// entry is what environments.yaml says about a function.
type entry struct {
	Function string            `json:"function" need:"true"`
	Region   string            `json:"region" need:"true"`
	Alias    string            `json:"alias"`
	Role     string            `json:"role"`
	Memory   int               `json:"memory"`
	Timeout  string            `json:"timeout"`
	Tmp      int               `json:"tmp"`
	Arch     string            `json:"arch"`
	Env      map[string]string `json:"env"`
	Endpoint string            `json:"endpoint"`
	NoProbe  bool              `json:"noProbe"`
}

func (e *entry) settings() (Settings, error) {
	s := Settings{Function: e.Function, Alias: e.Alias, Role: e.Role, Arch: e.Arch, Env: e.Env, Endpoint: e.Endpoint, NoProbe: e.NoProbe}
	if e.Memory < 0 || e.Memory > 10240 {
		return s, &targets.Error{Path: "memory", Err: fmt.Errorf("%d MB is not between 128 and 10240", e.Memory)}
	}
	if e.Tmp < 0 || e.Tmp > 10240 {
		return s, &targets.Error{Path: "tmp", Err: fmt.Errorf("%d MB is not between 512 and 10240", e.Tmp)}
	}
	s.Memory, s.Ephemeral = int32(e.Memory), int32(e.Tmp)
	if e.Timeout != "" {
		d, err := time.ParseDuration(e.Timeout)
		if err != nil || d <= 0 {
			return s, &targets.Error{Path: "timeout", Err: fmt.Errorf("%q: a length of time up to 15m is expected, as in 30s", e.Timeout)}
		}
		s.Timeout = d
	}
	return s, nil
}

// Machine is the architecture that a bundle for the function is made for, as GOARCH names it.
func (e *entry) Machine() string { return cmp.Or(e.Arch, defaultArch) }

// Check implements targets.Settings.
func (e *entry) Check() error {
	s, err := e.settings()
	if err != nil {
		return err
	}
	_, err = New(aws.Config{Region: e.Region}, s)
	return err
}

// Open implements targets.Settings. Credentials are those of AWS's own tools: variables, profiles, web identities, instance roles.
func (e *entry) Open(ctx context.Context, log *slog.Logger) (deploy.Target, error) {
	s, err := e.settings()
	if err != nil {
		return nil, err
	}
	s.Log = log
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(e.Region))
	if err != nil {
		return nil, fmt.Errorf("%w: AWS's configuration: %w", deploy.ErrUnauthorized, err)
	}
	return New(cfg, s)
}
