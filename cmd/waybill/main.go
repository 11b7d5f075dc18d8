// Command waybill compiles trained models to WebAssembly, bundles and signs them as OCI artifacts, gates them with
// policy, ships them to devices and clouds, and rolls them back. Everything is in internal/cli.
package main

import (
	"os"

	"github.com/waybill-ml/waybill/internal/cli"
)

func main() { os.Exit(cli.Main()) }
