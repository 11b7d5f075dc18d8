package codegen

func textLowering() map[string]lowerer { return map[string]lowerer{} }
