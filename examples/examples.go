// Package examples carries the files of the example projects, so that waybill demo works from any folder.
package examples

import "embed"

// BreastCancer holds the folder breast-cancer: the data, and the projects v1, v2, v3 and denied.
//
//go:embed breast-cancer/data breast-cancer/v1 breast-cancer/v2 breast-cancer/v3 breast-cancer/denied
var BreastCancer embed.FS
