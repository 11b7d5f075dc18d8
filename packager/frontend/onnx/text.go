package onnx

import (
	"regexp"

	"github.com/waybill-ml/waybill/packager/ir"
)

func textOps() map[string]handler {
	return map[string]handler{"StringNormalizer": stringNormalizer, "TfIdfVectorizer": tfIdf}
}

func msOps() map[string]handler {
	return map[string]handler{"Tokenizer": tokenizer}
}

func stringNormalizer(o *op) []*ir.Value {
	o.ignore("locale") // the mapping is Unicode's simple one, in every locale
	a := ir.Attrs{"case_change_action": o.attrStr("case_change_action", "NONE"), "is_case_sensitive": o.attrInt("is_case_sensitive", 0),
		"stopwords": append([]string{}, o.attrStrs("stopwords")...)}
	return one(o.emit("StringNormalizer", a, o.need(0)))
}

func tokenizer(o *op) []*ir.Value {
	exp, seps := o.attrStr("tokenexp", ""), append([]string{}, o.attrStrs("separators")...)
	for _, e := range append([]string{exp}, seps...) {
		if _, err := regexp.Compile(e); err != nil {
			return o.lacks("the expression %q (RE2 syntax): %v", e, err)
		}
	}
	if !o.hasAttr("pad_value") {
		return o.fail("attribute \"pad_value\" is missing")
	}
	a := ir.Attrs{"mark": o.attrInt("mark", 0), "pad_value": o.attrStr("pad_value", ""), "mincharnum": o.attrInt("mincharnum", 1),
		"separators": seps, "tokenexp": exp}
	return one(o.emit("ms.Tokenizer", a, o.need(0)))
}

func tfIdf(o *op) []*ir.Value {
	x := o.need(0)
	ints, strs, weights := o.attrInts("pool_int64s"), o.attrStrs("pool_strings"), o.attrFloats("weights")
	pool := ir.I64s([]int64{int64(len(ints))}, ints)
	if len(strs) > 0 {
		pool = ir.Strs([]int64{int64(len(strs))}, strs)
	} else {
		x = o.i64(x)
	}
	idx := append([]int64{}, o.attrInts("ngram_indexes")...)
	if len(weights) == 0 {
		weights = make([]float32, len(idx))
		for i := range weights {
			weights[i] = 1
		}
	}
	a := ir.Attrs{"mode": o.attrStr("mode", ""), "min_gram_length": o.attrInt("min_gram_length", 0), "max_gram_length": o.attrInt("max_gram_length", 0),
		"max_skip_count": o.attrInt("max_skip_count", 0), "ngram_counts": append([]int64{}, o.attrInts("ngram_counts")...), "ngram_indexes": idx,
		"pool": pool, "weights": ir.F32s([]int64{int64(len(weights))}, weights)}
	return one(o.emit("TfIdfVectorizer", a, x))
}
