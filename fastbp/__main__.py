import sys

from fastbp.cli.main import main

sys.exit(main())
