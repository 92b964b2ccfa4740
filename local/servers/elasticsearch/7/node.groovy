// Starts one Elasticsearch 7 node. The stock main class refuses to run as root and wants a distribution's folders.
import java.nio.file.Path
import org.elasticsearch.common.logging.LogConfigurator
import org.elasticsearch.common.settings.Settings
import org.elasticsearch.env.Environment
import org.elasticsearch.reindex.ReindexPlugin
import org.elasticsearch.node.InternalSettingsPreparer
import org.elasticsearch.node.Node
import org.elasticsearch.transport.Netty4Plugin

class LocalNode extends Node {
    LocalNode(Environment environment, Collection plugins) { super(environment, plugins, false) }
}

def home = Path.of(args[0])
def settings = Settings.builder().put("path.home", home.toString()).build()
def environment = InternalSettingsPreparer.prepareEnvironment(settings, [:], home.resolve("config"), { "local" })
LogConfigurator.setNodeName("local")
LogConfigurator.configure(environment)
def node = new LocalNode(environment, [Netty4Plugin, ReindexPlugin])
node.start()
Runtime.runtime.addShutdownHook(new Thread({ node.close() }))
Thread.currentThread().join()
