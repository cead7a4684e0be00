# docker build -t template-learning .          GPU: docker build --build-arg GPU=1 -t template-learning .
FROM python:3.12-slim-bookworm
ARG GPU=0
WORKDIR /opt/template-learning
COPY . .
RUN GPU=$GPU scripts/setup.sh && .tools/bin/uv pip install --python .venv/bin/python --constraints constraints.txt -e ".[hpc,gcs,fast]" \
    && rm -rf /var/lib/apt/lists/* /root/.cache
ENV PATH=/opt/template-learning/.venv/bin:$PATH
CMD ["tlgen", "--help"]
