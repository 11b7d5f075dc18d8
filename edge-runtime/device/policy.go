package device

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/devicepolicy"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/sense"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// local is the device's own policy with the readings it decides over. A policy that could not be loaded allows nothing.
type local struct {
	policy *devicepolicy.Policy
	broken error
	source sense.Source
}

// newLocal loads the policy that the configuration names. What is wrong with it keeps the device from taking new models, not
// from serving the one it has.
func newLocal(ctx context.Context, cfg *config.Config, e *engine.Engine, log *slog.Logger) *local {
	root := cfg.Sensors.Root
	if root == "" {
		root = "/"
	}
	l := &local{source: sense.Source{
		Root: os.DirFS(root), Metered: cfg.Sensors.Metered,
		Free: func() (uint64, error) { return (fsx.OS{}).FreeBytes(cfg.State) },
	}}
	code, err := config.ReadFile(cfg.DevicePolicy, devicepolicy.MaxModule)
	if err == nil {
		l.policy, err = devicepolicy.Load(ctx, e, code)
	}
	if err != nil {
		log.Error("no new model is taken: the device policy can't be used", "error", err)
		l.broken = fmt.Errorf("the device policy can't be used: %w", err)
	}
	return l
}

// Digest implements agent.Local.
func (l *local) Digest() artifact.Digest {
	if l.policy == nil {
		return ""
	}
	return l.policy.Digest()
}

// Decide implements agent.Local.
func (l *local) Decide(ctx context.Context, ask *deviceinput.Document) (bool, string) {
	if l.policy == nil {
		return false, l.broken.Error()
	}
	l.source.Read(&ask.Device)
	raw, err := ask.Encode()
	if err != nil {
		return false, err.Error()
	}
	d := l.policy.Evaluate(ctx, raw)
	return d.Allow, d.Why()
}

func (l *local) close(ctx context.Context) error {
	if l == nil || l.policy == nil {
		return nil
	}
	return l.policy.Close(ctx)
}

// asLocal keeps a nil *local from becoming an interface that is not nil.
func asLocal(l *local) agent.Local {
	if l == nil {
		return nil
	}
	return l
}
