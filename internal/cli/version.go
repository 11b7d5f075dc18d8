package cli

import (
	"context"
	"runtime"

	"github.com/waybill-ml/waybill/internal/version"
)

func versionCommand() Command {
	return Command{
		Name: "version", Group: Other, Summary: "print the version, the commit and the formats it speaks",
		Examples: []string{"waybill version", "waybill version --output json"},
		Run:      runVersion,
	}
}

type versionJSON struct {
	Schema   string   `json:"schema"`
	Version  string   `json:"version"`
	Commit   string   `json:"commit"`
	Modified bool     `json:"modified"`
	Go       string   `json:"go"`
	OS       string   `json:"os"`
	Arch     string   `json:"arch"`
	ABI      int      `json:"abi"`
	Formats  []string `json:"formats"`
}

func runVersion(_ context.Context, c *Call) error {
	b := version.Info()
	v := versionJSON{
		Schema: schemaBase + "version/v1", Version: version.Number, Commit: b.Commit, Modified: b.Modified,
		Go: b.Go, OS: runtime.GOOS, Arch: runtime.GOARCH, ABI: abiVersion, Formats: formats(),
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(v)
	}
	commit := v.Commit
	if commit == "" {
		commit = "unknown"
	}
	if v.Modified {
		commit += " (modified)"
	}
	c.UI.Data("waybill %s", v.Version)
	c.UI.Data("  %-8s %s", "commit", commit)
	c.UI.Data("  %-8s %s %s/%s", "built", v.Go, v.OS, v.Arch)
	c.UI.Data("  %-8s %d", "abi", v.ABI)
	for _, f := range v.Formats {
		c.UI.Data("  %-8s %s", "format", f)
	}
	return nil
}
