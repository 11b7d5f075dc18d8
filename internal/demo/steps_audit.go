package demo

import (
	"context"
	"errors"
)

func stepAudit(ctx context.Context, w *world) (string, error) {
	return "", errors.New("not yet")
}

// next are the commands to try in a kept work area.
func (w *world) next() []string {
	return []string{
		"cd " + shell([]string{w.dir}),
		"waybill registry serve --addr " + w.host + " --root registry &",
		"waybill inspect " + w.ref("v2"),
		"waybill verify " + w.ref("v2") + " --env prod",
		"waybill channel history prod " + w.repo(),
		"waybill-edge run --config " + w.config + " &",
		"waybill-edge history --config " + w.config,
	}
}
