package config

import (
	"io"
	"log/slog"

	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/redact"
	"github.com/waybill-ml/waybill/internal/version"
)

// logConfig says how the agent writes its log to stderr.
type logConfig struct {
	Format string `json:"format,omitempty"` // ecs (default) or text
	Level  string `json:"level,omitempty"`  // debug, info (default), warn or error
}

// check tells what is wrong.
func (c logConfig) check() error {
	if c.Format != "" && c.Format != "ecs" && c.Format != "text" {
		return diag.Errorf("log.format is %q, not ecs or text", c.Format)
	}
	if _, err := c.level(); err != nil {
		return err
	}
	return nil
}

func (c logConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, diag.Errorf("log.level is %q, not debug, info, warn or error", c.Level)
}

// Logger makes the log that the configuration asks for; verbose lowers its level to debug.
func (c logConfig) Logger(w io.Writer, verbose bool, hide *redact.Redactor) *slog.Logger {
	level, err := c.level()
	if err != nil || verbose { // check was called before
		level = slog.LevelDebug
	}
	o := ecslog.Options{Level: level, Redact: hide, Service: "waybill-edge", Version: version.Number}
	if c.Format == "text" {
		return ecslog.NewText(w, o)
	}
	return ecslog.New(w, o)
}
