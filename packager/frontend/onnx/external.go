package onnx

import (
	"path"
	"slices"
)

// ExternalFiles lists the files beside a model in which its tensors lie, as the model names them, cleaned and sorted. A model
// that cannot be read names none; Parse says why it cannot.
func ExternalFiles(data []byte) []string {
	m, err := decodeModel(data)
	if err != nil || m.graph == nil {
		return nil
	}
	var out []string
	tensor := func(t *tensorProto) {
		for _, e := range t.external {
			if e.key == "location" && e.value != "" {
				out = append(out, path.Clean(e.value))
			}
		}
	}
	var graph func(g *graphProto)
	nodes := func(ns []nodeProto) {
		for _, n := range ns {
			for _, a := range n.attrs {
				if a.t != nil {
					tensor(a.t)
				}
				for i := range a.tensors {
					tensor(&a.tensors[i])
				}
				if a.g != nil {
					graph(a.g)
				}
			}
		}
	}
	graph = func(g *graphProto) {
		for i := range g.inits {
			tensor(&g.inits[i])
		}
		nodes(g.nodes)
	}
	graph(m.graph)
	for _, f := range m.functions {
		nodes(f.nodes)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
