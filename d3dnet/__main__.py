import sys

from d3dnet.cli import main

sys.exit(main())
