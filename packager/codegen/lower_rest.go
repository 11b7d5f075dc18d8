package codegen

func mlLowering() map[string]lowerer   { return map[string]lowerer{} }
func textLowering() map[string]lowerer { return map[string]lowerer{} }
