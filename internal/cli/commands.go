package cli

// commands is the table of everything the command line can do, in the order of the help. One line per verb; the verb
// itself stands in a file of its own (nouns in a folder of their own). See doc.go.
func commands() []Command {
	var all []Command
	all = append(all, buildCommands()...)
	all = append(all, shipCommands()...)
	all = append(all, trustCommands()...)
	all = append(all, governCommands()...)
	all = append(all, fleetCommands()...)
	all = append(all, otherCommands()...)
	return all
}

// buildCommands turn a trained model into an artifact and try it.
func buildCommands() []Command {
	return []Command{
		initCommand(),
		packCommand(),
		compileCommand(),
		testCommand(),
		predictCommand(),
		benchCommand(),
	}
}

// shipCommands move artifacts.
func shipCommands() []Command {
	return []Command{
		inspectCommand(),
		diffCommand(),
		pushCommand(),
		pullCommand(),
		copyCommand(),
		saveCommand(),
		loadCommand(),
		imageCommand(),
		bundleCommand(),
		storeCommand(),
		registryCommand(),
	}
}

// trustCommands make and check evidence.
func trustCommands() []Command {
	return []Command{
		keysCommand(),
		omsCommand(),
		trustCommand(),
		signCommand(),
		attestCommand(),
		approveCommand(),
		approvalsCommand(),
		verifyCommand(),
	}
}

// governCommands decide and answer for it.
func governCommands() []Command {
	return []Command{
		factsCommand(),
		gateCommand(),
		policyCommand(),
		envCommand(),
		auditCommand(),
	}
}

// fleetCommands say what runs where.
func fleetCommands() []Command {
	return []Command{
		deployCommand(),
		statusCommand(),
		promoteCommand(),
		rollbackCommand(),
		channelCommand(),
	}
}

// otherCommands are about the tool itself.
func otherCommands() []Command {
	return []Command{
		demoCommand(),
		versionCommand(),
		completionCommand(),
		completeCommand(),
		helpCommand(),
	}
}
