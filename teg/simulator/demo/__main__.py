from teg.simulator.demo.main import main

raise SystemExit(main())
