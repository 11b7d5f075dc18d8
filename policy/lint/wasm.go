package lint

import "github.com/open-policy-agent/opa/v1/ast"

// nativeWasm are the builtins that OPA compiles into WebAssembly itself; all others are calls to the host.
var nativeWasm = []string{
	ast.Plus.Name, ast.Minus.Name, ast.Multiply.Name, ast.Divide.Name, ast.Abs.Name, ast.Round.Name, ast.Ceil.Name,
	ast.Floor.Name, ast.Rem.Name, ast.ArrayConcat.Name, ast.ArrayFlatten.Name, ast.ArrayReverse.Name, ast.ArraySlice.Name,
	ast.SetDiff.Name, ast.And.Name, ast.Or.Name, ast.Intersection.Name, ast.Union.Name, ast.IsNumber.Name,
	ast.IsString.Name, ast.IsBoolean.Name, ast.IsArray.Name, ast.IsSet.Name, ast.IsObject.Name, ast.IsNull.Name,
	ast.TypeNameBuiltin.Name, ast.BitsOr.Name, ast.BitsAnd.Name, ast.BitsNegate.Name, ast.BitsXOr.Name,
	ast.BitsShiftLeft.Name, ast.BitsShiftRight.Name, ast.Count.Name, ast.Sum.Name, ast.Product.Name, ast.Max.Name,
	ast.Min.Name, ast.Sort.Name, ast.All.Name, ast.Any.Name, ast.Base64IsValid.Name, ast.Base64Decode.Name,
	ast.Base64Encode.Name, ast.Base64UrlEncode.Name, ast.Base64UrlDecode.Name, ast.NetCIDRContains.Name,
	ast.NetCIDROverlap.Name, ast.NetCIDRIntersects.Name, ast.Equal.Name, ast.GreaterThan.Name, ast.GreaterThanEq.Name,
	ast.LessThan.Name, ast.LessThanEq.Name, ast.NotEqual.Name, ast.GlobMatch.Name, ast.JSONMarshal.Name,
	ast.JSONUnmarshal.Name, ast.JSONIsValid.Name, ast.ObjectFilter.Name, ast.ObjectGet.Name, ast.ObjectKeys.Name,
	ast.ObjectRemove.Name, ast.ObjectUnion.Name, ast.ObjectUnionN.Name, ast.Concat.Name, ast.FormatInt.Name,
	ast.IndexOf.Name, ast.Substring.Name, ast.Lower.Name, ast.Upper.Name, ast.Contains.Name, ast.StartsWith.Name,
	ast.EndsWith.Name, ast.StringReverse.Name, ast.Split.Name, ast.Replace.Name, ast.ReplaceN.Name, ast.Trim.Name,
	ast.TrimLeft.Name, ast.TrimPrefix.Name, ast.TrimRight.Name, ast.TrimSuffix.Name, ast.TrimSpace.Name,
	ast.InternalTemplateString.Name, ast.NumbersRange.Name, ast.ToNumber.Name, ast.WalkBuiltin.Name,
	ast.ReachableBuiltin.Name, ast.RegexIsValid.Name, ast.RegexMatch.Name, ast.RegexMatchDeprecated.Name,
	ast.RegexFindAllStringSubmatch.Name, ast.JSONRemove.Name, ast.JSONFilter.Name, ast.Member.Name,
	ast.MemberWithKey.Name, ast.Equality.Name, ast.Assign.Name,
}
