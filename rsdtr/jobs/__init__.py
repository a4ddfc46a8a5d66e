"""Long work in processes that outlive the page: table, queue, worker, one module a kind."""
