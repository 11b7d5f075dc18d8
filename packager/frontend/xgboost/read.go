// Package xgboost reads XGBoost models (JSON, UBJ, and the binary format of old versions) into the compiler's graph.
// Margins are summed like the library does it, in f32 and in its order.
package xgboost

import (
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/trees"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Parse reads a model from memory and gives a verified graph with the input X (f32 [N, features], NaN is missing).
// Errors: *frontend.FormatError for what is damaged, *frontend.UnsupportedError.
func Parse(data []byte) (*ir.Graph, error) {
	m, err := decodeAny(data)
	if err == nil {
		var g *ir.Graph
		if g, err = lower(m); err == nil {
			g.Producer, g.Columns = "XGBoost", trees.Columns(m.names, m.features)
			if v := m.version; v[0] > 0 {
				g.Producer = fmt.Sprintf("XGBoost %d.%d.%d", v[0], v[1], v[2])
			}
			return g, nil
		}
	}
	var u *frontend.UnsupportedError
	if errors.As(err, &u) {
		return nil, err
	}
	return nil, &frontend.FormatError{Format: frontend.XGBoost, Err: fmt.Errorf("XGBoost model: %w", err)}
}

// decodeAny tells the formats apart: both documents start with a brace, and UBJ goes on with a length.
func decodeAny(data []byte) (*model, error) {
	var doc *value
	var err error
	switch {
	case len(data) == 0:
		return nil, errors.New("the file is empty")
	case data[0] == '{' && len(data) > 1 && (width(data[1]) > 0 || data[1] == '#' || data[1] == '$' || data[1] == 'N'):
		doc, err = parseUBJ(data)
	case data[0] == '{' || data[0] == ' ' || data[0] == '\n' || data[0] == '\r' || data[0] == '\t':
		doc, err = parseJSON(data)
	default:
		return decodeBinary(data)
	}
	if err != nil {
		return nil, err
	}
	return fromDocument(doc)
}
