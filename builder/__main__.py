from builder.commands.cli import main

main()
