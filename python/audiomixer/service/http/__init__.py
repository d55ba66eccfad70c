"""HTTP and nothing else: routes, forms, answers, and what keeps connections and pages in order."""
