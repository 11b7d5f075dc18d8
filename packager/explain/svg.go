package explain

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"sort"

	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
)

// Sizes of the picture, in pixels.
const (
	boxW, boxH = 210, 46
	gapX, gapY = 24, 44
	margin     = 20
	maxLabel   = 30 // characters
)

type box struct {
	kind, top, bottom, tip string
	ins                    []*box
	layer                  int
	pos                    float64 // for the order within the layer
	x, y                   int
}

// SVG draws the graph without its constants: inputs above, results below, each node under all it uses. Control flow is one box. Below
// it is the memory plan p, unless that is nil. The picture stands alone; all text of the model is escaped.
func SVG(w io.Writer, g *ir.Graph, p *plan.Map) error {
	layers, all := layout(g)
	width, height := 0, margin
	for _, l := range layers {
		width = max(width, len(l)*(boxW+gapX)-gapX+2*margin)
	}
	for _, l := range layers {
		x := (width - len(l)*(boxW+gapX) + gapX) / 2
		for _, b := range l {
			b.x, b.y = x, height
			x += boxW + gapX
		}
		height += boxH + gapY
	}
	height += margin - gapY
	below := height
	if p != nil {
		width, height = max(width, planW+2*margin), height+planHead+planH+margin
	}
	e := &writer{w: w}
	e.print(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13">`+"\n", width, height, width, height)
	e.print("<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", escaped(g.Name))
	for _, b := range all {
		for _, from := range b.ins {
			x1, y1, x2, y2 := from.x+boxW/2, from.y+boxH, b.x+boxW/2, b.y
			e.print(`<path d="M%d %dC%d %d %d %d %d %d" fill="none" stroke="#7a8794"/>`+"\n", x1, y1, x1, y1+gapY/2, x2, y2-gapY/2, x2, y2)
		}
	}
	for _, b := range all {
		fill := "#eef3f8"
		if b.kind != "node" {
			fill = "#e3f1e1"
		}
		e.print(`<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="5" fill="%s" stroke="#44525f"/>`, escaped(b.tip), b.x, b.y, boxW, boxH, fill)
		e.print(`<text x="%d" y="%d" text-anchor="middle" font-weight="600" fill="#1c252e">%s</text>`, b.x+boxW/2, b.y+19, escaped(short(b.top)))
		e.print(`<text x="%d" y="%d" text-anchor="middle" font-size="11" fill="#44525f">%s</text></g>`+"\n", b.x+boxW/2, b.y+36, escaped(short(b.bottom)))
	}
	if p != nil {
		planBoxes(e, p, margin, below)
	}
	e.print("</svg>\n")
	return e.err
}

func layout(g *ir.Graph) (layers [][]*box, all []*box) {
	made := map[*ir.Value]*box{}
	place := func(b *box, vs []*ir.Value) {
		seen := map[*box]bool{}
		sum := 0.0
		for _, v := range vs {
			from := made[v]
			if v == nil || from == nil || seen[from] {
				continue
			}
			seen[from] = true
			b.ins = append(b.ins, from)
			b.layer = max(b.layer, from.layer+1)
			sum += from.pos
		}
		if len(b.ins) > 0 {
			b.pos = sum / float64(len(b.ins))
		}
		all = append(all, b)
	}
	for i, v := range g.Body.Params {
		b := &box{kind: "input", top: v.Name, bottom: v.Type.String(), tip: "input " + v.Name + " " + v.Type.String(), pos: float64(i)}
		made[v] = b
		place(b, nil)
	}
	for _, n := range g.Body.Nodes {
		b := &box{kind: "node", top: n.Op, tip: n.Op + " " + n.Name}
		ins := n.Ins
		for _, r := range n.Regions {
			ins = append(ins[:len(ins):len(ins)], r.Captures...)
		}
		place(b, ins)
		for _, o := range n.Outs {
			if o == nil {
				continue
			}
			if b.bottom == "" {
				b.bottom = o.Type.String()
			}
			b.tip += "\n" + o.Name + " " + o.Type.String()
			made[o] = b
		}
	}
	deepest := 0
	for _, b := range all {
		deepest = max(deepest, b.layer)
	}
	for _, v := range g.Body.Results {
		b := &box{kind: "result", top: v.Name, bottom: v.Type.String(), tip: "result " + v.Name + " " + v.Type.String()}
		place(b, []*ir.Value{v})
		b.layer = deepest + 1
	}
	layers = make([][]*box, deepest+2)
	for _, b := range all {
		layers[b.layer] = append(layers[b.layer], b)
	}
	for _, l := range layers {
		sort.SliceStable(l, func(i, j int) bool { return l[i].pos < l[j].pos })
	}
	return layers, all
}

func short(s string) string {
	if r := []rune(s); len(r) > maxLabel {
		return string(r[:maxLabel-1]) + "…"
	}
	return s
}

// escaped makes text safe inside XML; what XML cannot hold becomes U+FFFD.
func escaped(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return fmt.Sprintf("(%d bytes)", len(s)) // a Buffer gives no errors
	}
	return b.String()
}
