package steps

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// locate finds the value of field in a JSON document, or of as much of its path as is there.
func locate(doc []byte, field string) (line, col int) {
	var path []string
	for part := range strings.SplitSeq(field, ".") {
		name, index, ok := strings.Cut(part, "[")
		path = append(path, name)
		if ok {
			path = append(path, "["+strings.TrimSuffix(index, "]"))
		}
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	best := 0
	if len(path) > 0 && path[0] == "tokenizer" { // tokenizer.json: the document
		path = nil
	}
	descend(d, doc, path, &best)
	return position(doc, best)
}

// descend reads one value and follows path in it; best is where the deepest value on the path begins. It returns false when the path is
// used up or the document is not JSON.
func descend(d *json.Decoder, doc []byte, path []string, best *int) bool {
	at := int(d.InputOffset())
	for at < len(doc) && strings.IndexByte(" \t\r\n:,", doc[at]) >= 0 {
		at++
	}
	*best = at
	if len(path) == 0 {
		return false
	}
	tok, err := d.Token()
	if err != nil {
		return false
	}
	delim, _ := tok.(json.Delim)
	if delim != '{' && delim != '[' {
		return false
	}
	for i := 0; d.More(); i++ {
		hit := delim == '[' && path[0] == "["+strconv.Itoa(i)
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return false
			}
			hit = key == path[0]
		}
		if hit {
			return descend(d, doc, path[1:], best)
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return false
		}
	}
	return false
}

// position counts lines and bytes from 1.
func position(doc []byte, at int) (line, col int) {
	before := doc[:max(0, min(at, len(doc)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
