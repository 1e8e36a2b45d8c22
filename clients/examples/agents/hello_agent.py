"""The smallest agent: ``python clients/examples/agents/hello_agent.py`` serves it."""

from __future__ import annotations

from mediamesh.agent import Agent, Run, main


class Hello(Agent):
    """Greets."""

    manifest_file = "hello_agent.yaml"

    async def process(self, run: Run) -> dict[str, str]:
        """Greet whoever is named."""
        return {"greeting": f"{run.params['salutation']}, {run.inputs['name']}!"}


if __name__ == "__main__":
    main(Hello())
