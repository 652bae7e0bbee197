"""Our search and its peers on problems whose optimum is known."""
