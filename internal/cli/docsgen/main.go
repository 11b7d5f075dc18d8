// Command docsgen writes the generated pages of the command line into the folder given as its argument.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/cli"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: docsgen DIR")
	}
	for name, text := range cli.Docs() {
		if err := os.WriteFile(filepath.Join(os.Args[1], name), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
