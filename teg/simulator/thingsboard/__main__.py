from teg.simulator.thingsboard.cli import main

raise SystemExit(main())
